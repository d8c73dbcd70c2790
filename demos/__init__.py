"""The explorer: a Gradio app whose every answer is a call of `textsam`; never imported by it."""
