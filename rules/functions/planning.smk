"""Inputs and parameters of the rules in planning.smk."""

from workflow.planning import messages


def to_do():
    """The jobs that this run has before it: rule -> keys of each, in the order of the rules."""
    jobs = {known.name: [] for known in workflow.rules if known.name != "all"}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in jobs:
            jobs[job.rule.name].append(dict(job.wildcards_dict))
    return {name: own for name, own in jobs.items() if own}


def cores_without_gpu():
    """The cores of this machine, if all jobs run on it and it has no GPU; otherwise None."""
    cores = workflow.resource_settings.cores
    return cores if workflow.local_exec and cores and not devices.visible() else None


def failed():
    """The jobs of this run that failed, whatever Snakemake said of them; those that a retry made good left out."""
    return [
        messages.Failed(
            single.rule.name,
            single.jobid,
            next(map(str, single.log), ""),
            job.groupid if job.is_group() else None,
        )
        for job in workflow.scheduler.failed
        for single in (job if job.is_group() else [job])
    ]
