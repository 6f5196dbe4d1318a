"""UniCompress: training of the networks of the codec."""
