"""Speech that is coded while it is spoken: from a microphone, file or pipe to a speaker or link."""
