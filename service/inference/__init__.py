"""The engine: sampling and its measures. Torch only; no web, no asyncio."""
