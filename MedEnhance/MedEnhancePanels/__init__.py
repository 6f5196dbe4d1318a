"""What the MedEnhance module is made of: one file a page, and the parts they share."""
