"""What models read instead of audio: cached hidden states of frozen encoders, MFCCs, functionals."""
