"""Gateways to AWS: boto3 on one side, our plain types on the other, one translator of errors."""
