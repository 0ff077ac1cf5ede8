"""Reads poses of any estimator: every file format, joint layout and unit in, clips in Kinect's space out.

    forms    the table of file formats: how each is recognised, and its reader
    jsons, tables, arrays
             the readers; each returns `record.Poses`
    joints   the joint layout, from the joint names in a file, the number of joints, or the shape of the bodies
    space    units, axes and handedness, found from the bodies of a whole data set, and the conversion to Kinect's space
    mend     repairs of a clip: frames without a person, gaps, persons that change order, frame rates
    labels   classes and splits
    survey   all of it: `survey` looks at a folder and decides; the `Reader` it returns turns each entry into clips

Nothing here depends on data sets or programs; `data_gen.from_poses` builds prepared folders of these clips, and
`engine.features` and the programs read clips for an encoder with it, too.
"""
