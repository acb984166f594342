"""A folder of images becomes batches."""
