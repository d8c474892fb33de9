"""Initial-state tuning: a voice, or a style, learnt as the state that frozen recurrences start from."""
