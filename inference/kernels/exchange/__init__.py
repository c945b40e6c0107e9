"""Kernels whose accept step by the exchange ratio makes the unknown Z(theta_1) cancel."""

from inference.kernels.exchange.hmc import ExchangeHMC
from inference.kernels.exchange.transported import TransportedExchange

__all__ = ["ExchangeHMC", "TransportedExchange"]
