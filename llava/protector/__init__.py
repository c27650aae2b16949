"""The harm detector, the detoxifier and the protector that joins them."""
