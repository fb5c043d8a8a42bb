"""What published networks hear in a sound: embeddings, tags, speech, music,
agreement with a text.
"""
