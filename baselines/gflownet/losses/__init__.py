"""The balance conditions, one file each: pure functions of tensors.

Letters: B trajectories, T steps, A actions. `log_flows` [B, T + 1] holds log F of every state of a trajectory, the
terminal one being log R; `log_forward` [B, T] and `log_backward` [B, T] belong to the step from state t to t + 1;
`mask` [B, T] is true for steps that were taken, and trajectories may differ in length.
"""
