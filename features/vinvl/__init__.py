"""Microsoft's X152-C4 object-attribute detector (VinVL), our own implementation."""
