"""Login, brokerage session, keep-alive, accounts, questions."""
