"""A page and an HTTP API that make soundtracks for videos from strangers.

`app.create` makes the application, `v2a serve` runs it. What is uploaded is only
decoded in the sandbox of `media`; clients name nothing but ids of this service.
"""
