"""``python -m bt_ibkr``: the command ``bt-ibkr``, where its script is not on the path."""

from bt_ibkr.cli.main import main

if __name__ == "__main__":
    main()
