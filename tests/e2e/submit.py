"""A job of a night by the job server of RAY_ADDRESS, whose former run was cut off."""

import logging
import os
import sys

from ray.job_submission import JobSubmissionClient

from flows.job import mark_of, run_job


def main() -> None:
    """Leave a job of the same night at work, then do the job of argv."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    verb, *arguments = sys.argv[1:]
    client = JobSubmissionClient(os.environ["RAY_ADDRESS"])
    client.submit_job(entrypoint="sleep 600", metadata=mark_of(arguments, {}))
    run_job(verb, arguments, {}, lambda: False)


if __name__ == "__main__":
    main()
