"""Orders inside other trainers: one file for each library whose training can be told what to learn next.

`coretune.integrations.trl` is for `trl.SFTTrainer` and `transformers.Trainer`.
"""
