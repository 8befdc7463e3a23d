"""The site's daemon: a supervised Flower SuperNode, its status, log and page."""
