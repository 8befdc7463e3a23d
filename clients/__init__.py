"""The side of F2L-Fed beside private data: the Flower ClientApp, the site's policy, its daemon."""
