"""The page in the browser: layout, events and endpoints, in Gradio."""
