"""Gated Linear Attention: one recurrence, computed step by step, chunk by chunk or by Triton kernels."""
