"""`mllm-protector guard-bench`: any guard on any labelled responses, beside what is published of others."""
