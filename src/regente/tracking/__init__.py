"""Everything that goes to MLflow.

Tags of a run, each with the prefix `regente.`:

    kind                            job, sweep or evaluation
    job, experiment, overrides      the job directory, the experiment file, the overrides
    swept                           keys that tell the job from others of its sweep
    host, boot, pid, started        the process that runs it; see ProcessIdentity
    heartbeat                       a counter that rises every ten seconds while the process is alive
    resumes                         how often it was resumed; params of a resume are `resume.N/KEY`
    rerun_of, init_from, forked_from    the run that it repeats, its initial weights, and the run of these weights
    fingerprint, host_cpu, dirty    machines of one fingerprint give the same bits; uncommitted changes
    parameters, trainable, megabytes    of the model: its parameters, those that are trained, size; see RunDescription
    device, ranks                   the kind of device, and the number of processes
    precision, weights, matmul      trainer.precision, the dtype of the weights, what a float product is computed in
    best_checkpoint                 the path of the best weights, or none
    pruned, unreported              of a trial: when it was pruned; why its reports to the search ended
    failure                         the error that ended the run
    model                           why no model was logged
    long_params                     names of the params that MLflow cuts; whole in config/long_params.json
    objective, best, best_run, best_over_seeds    of a sweep

Artifacts of a run:

    config/          config.yaml, job.json, long_params.json
    environment/     provenance.json, packages.txt, hardware.json, torch.json, data.json
    code/            changes.patch: uncommitted changes
    model/           model.txt, fitted_state.json, vocabulary.txt
    checkpoints/     the checkpoints that `tracking.checkpoints` names
    figures/         learning curves, confusion matrix, calibration, worst mistakes, ...
    finders/         learning_rates.json, batch_sizes.json
    samples/ profile/ classes/ sweep/    generated texts, profile, metrics of each class, tables of a sweep
    trace.jsonl found.json traceback.txt
    what the user's code logs as files, under the names that it gives
"""
