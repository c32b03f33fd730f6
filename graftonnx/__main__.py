"""`python -m graftonnx`."""

from graftonnx.cli import main

if __name__ == "__main__":
    main()
