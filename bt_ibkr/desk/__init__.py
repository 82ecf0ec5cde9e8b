"""The order desk of a brokerage session: everything between a strategy's command and IBKR's answer.

Runs on the session's loop thread. Risk controls, journal, conversation, look-up, reconciliation, kill switch; knows
neither backtrader nor how commands came here.
"""
