"""HQG-Net: unpaired enhancement guided by high-quality images."""
