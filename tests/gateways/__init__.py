"""Tests of the gateways: readers, outbox, senders, replay, demo city."""
