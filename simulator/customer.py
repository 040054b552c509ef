"""What the customer's own AWS administrator does to a simulated account; the product holds no such rights."""

import os

import boto3

STACK_NAME = "Spotopt"


def create_stack(*, account_id: str, template: str, external_id: str, endpoint: str | None = None) -> str:
    """Create the product's role by CloudFormation, unless the stack exists, and return the role's ARN."""
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=endpoint or os.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=f"AKIACUSTOMERADMIN{account_id}",
        aws_secret_access_key="simulated",  # noqa: S106  # the simulator takes any
    )
    names = [stack["StackName"] for stack in cloudformation.describe_stacks()["Stacks"]]
    if STACK_NAME not in names:
        cloudformation.create_stack(
            StackName=STACK_NAME,
            TemplateBody=template,
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": "ExternalId", "ParameterValue": external_id}],
        )
    stack = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    return str(outputs["RoleArn"])
