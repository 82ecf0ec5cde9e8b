"""Orders: submission with its questions, changes, cancellation, live orders, status, executions."""
