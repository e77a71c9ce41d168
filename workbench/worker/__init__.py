"""The toolchain side: run as `python <this folder>`, never imported by the notebook side."""
