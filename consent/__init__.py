"""Who may see whose data, why, and the proof; every stored row leaves through consent.gate."""
