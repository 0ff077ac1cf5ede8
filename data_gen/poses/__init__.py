"""Poses of other people's estimators: one reader for every file form, layout and unit.

    forms    the table of file forms: how each is known, and the reader of each
    jsons, tables, arrays
             the readers; each yields the same record, `record.Poses`
    joints   which joint is which: by the names in a file, by the number of joints, by the shape of bodies
    space    units, axes and handedness, found from the bodies of a whole data set and turned to Kinect space
    mend     what is dirty in a clip: frames without a person, gaps, persons that change order, rates of frames
    labels   classes and splits
    survey   all of it: `survey` looks at a folder and decides; the `Reader` it returns turns each entry into clips

Nothing here knows data sets or programs; `data_gen.from_poses` builds prepared folders of what comes out, and
`engine.features` and the programs read clips for an encoder with it, too.
"""
