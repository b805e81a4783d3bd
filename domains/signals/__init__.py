"""Traffic signals: SAE J2735 SPaT and MAP, in UPER and as ODE JSON."""
