"""Backends: the engines that run a model."""
