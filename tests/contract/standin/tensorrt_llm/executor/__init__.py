"""The executor: requests in, tokens out."""

from .result import CompletionOutput, Logprob, RequestError

__all__ = ["CompletionOutput", "Logprob", "RequestError"]
