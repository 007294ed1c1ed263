"""`python -m medcnn` is the command `medcnn`."""

from medcnn.cli import main

if __name__ == "__main__":
    main()
