"""What runs beside private data: the Flower ClientApp, the site's policy, its daemon."""
