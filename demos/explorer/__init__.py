"""What a user of the explorer does with a photo; nothing here knows Gradio."""
