"""What happens to orders, executions and positions without the client: by other programs, IBKR and issuers."""
