"""Fine-tune a language model with GRPO to forecast prices, and measure what it learnt.

The rooms, from the top; each imports from itself and from those below it:

    stages        the pipeline's commands; beside them the commands hub, predict, doctor, preflight and embedded
    comparison    the comparison of a run            prediction   forecasts with a trained adapter
    training      GRPO, SFT, rejection sampling
    machine       what this machine can do           publishing   adapters to the Hub
    sampling      completions, and the language model as a forecaster
    runs          run folders and the one resume rule
    models        base models and adapters
    language      prompts, answers and rewards
    evaluation    the judge, which knows no language model

Under all of them lies `preprocessing`. grpo never imports `baselines`: forecasters are found by name through the
entry-point group "grpo.forecasters".
"""
