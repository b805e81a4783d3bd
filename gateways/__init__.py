"""What runs beside the devices: reads data, stores and forwards it, waits for receipts."""
