"""The HTTP server (``vinograph serve``): the APIs of OpenAI's images and of AUTOMATIC1111."""
