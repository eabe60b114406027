"""The HF Trainer loop, seeding, resume."""
