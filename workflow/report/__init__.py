"""The report of a study: its chapters, pages and description, beside the captions, style and script that they use."""
