"""Fine-tune a language model with GRPO to forecast prices, and measure what it learnt.

The rooms, from the top; each imports from itself and from those below it:

    stages        the pipeline's commands; beside them the commands hub, predict, doctor, preflight and embedded
    comparison    the comparison of a run            prediction   forecasts with a trained adapter
    config        a run's whole configuration, which the commands take apart: the rooms take what they need
    training      GRPO, SFT, rejection sampling, and the checks before them
    machine       what this machine can do           publishing   adapters to the Hub
    sampling      completions, and the language model as a forecaster
    runs          run folders and the one resume rule
    models        base models and adapters
    language      prompts, answers and rewards
    evaluation    the judge, which knows no language model

Under all of them lies `preprocessing`. grpo never imports `baselines`: forecasters are found by name through the
entry-point group "grpo.forecasters".
"""
