"""What users call: a video and words in, soundtracks out."""
