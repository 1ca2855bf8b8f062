"""What flows between the steps: types, digests, the ledger, configuration. Standard library, numpy, pydantic and yaml only."""
