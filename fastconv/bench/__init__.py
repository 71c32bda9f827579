"""`fastconv bench`: fastconv against other libraries, layer by layer, pass by pass.

``command``    the command line
``live``       the table and the progress bar
``report``     the HTML page, drawn by ``charts``
``measure``    a row: values compared first, then times taken in pairs
``libraries``  how each library computes a pass
``problems``   the layers of well-known networks, and inputs for them
``training``   epochs of whole networks
``roofline``   what this machine can do at most
``record``     rows on disk and what they add up to
``machine``    what a number belongs to; how many threads every library uses
``speed``      one convolution beside what would be possible
``timing``     the one timing loop
``tune``       which algorithm to take when on this machine

`fastconv compare`: the CPU beside the GPU, or beside what its data sheet promises.

``compare``         the command line, the table, and what happens in which order
``compare_report``  the HTML page
``crossover``       from which batch size on the GPU pays
``gpu``             a layer on the GPU: computed, timed, predicted or emulated
``graph``           launches recorded once and replayed, so that kernels alone are timed
``model_layers``    the layers of a model

Nothing here is imported by the rest of the package but the command line.
"""
