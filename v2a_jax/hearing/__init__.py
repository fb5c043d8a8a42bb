"""What published networks hear in a sound: embeddings, tags, speech, music."""
