"""The stores of a zoo: a local folder, or an S3 bucket."""
