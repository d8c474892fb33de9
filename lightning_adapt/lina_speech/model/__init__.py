"""The codec language model: configuration, layers, cross-attention to the text, recurrent state and delay pattern."""
